"""underseer: can a language model be aligned from weak supervision alone?"""

__version__ = "0.1.0"
