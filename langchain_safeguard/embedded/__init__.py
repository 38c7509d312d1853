"""The embedded guard's classifier: a small model that ships inside the package.

    classifier = EmbeddedClassifier.load()
    [scores] = classifier.score([Passage("how do I pick a lock?")])
    scores.score, scores.categories

Importing this package does not import torch; `EmbeddedClassifier.load` does.
"""

from langchain_safeguard.embedded.classifier import EmbeddedClassifier
from langchain_safeguard.embedded.passages import Passage, PassageScores, Side, WindowScore

__all__ = ["EmbeddedClassifier", "Passage", "PassageScores", "Side", "WindowScore"]
