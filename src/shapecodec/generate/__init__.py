"""Generators: networks that make latents out of noise. They know `Latents`, and of a codec only its name and hash."""
