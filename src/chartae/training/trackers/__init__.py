"""Lightning loggers with one more method, ``log_image(key, images, step)``, a module for each.

Lightning's own logger of Weights & Biases has that method too.
"""
