"""shapecodec: any triangle mesh into a compact latent and back, at up to 2048^3."""
