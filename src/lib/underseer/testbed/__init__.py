"""The testbed: a small controlled world in which the truth is known, so that it serves as a measuring instrument.

``world`` holds what is true (which invented word means what), ``tasks`` writes labelled rows, ``oracle`` reads the truth
back from the text alone, ``corpus`` writes the pre-training text, and ``base`` pre-trains the small base models.
Everything it produces is synthetic and is marked so wherever it is shown.
"""
