"""Fast paths of the differentiable pictures for CUDA. Gradients of vertices are atomic sums, so their last bits vary."""
