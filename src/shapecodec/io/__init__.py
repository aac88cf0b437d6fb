"""Files in and out: meshes, latents and codec folders.

This file imports nothing, because the parsing child starts through it and must not pay for torch.
"""
