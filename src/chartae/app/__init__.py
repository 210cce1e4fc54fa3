"""The explorer of a latent space: a server with Dash, and one page without a server."""
