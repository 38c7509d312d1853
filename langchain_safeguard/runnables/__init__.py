"""Guards in chains.

from langchain_safeguard import InputGuard, OutputGuard

chain = prompt | InputGuard() | llm | OutputGuard()
"""

from langchain_safeguard.runnables.input_guard import InputGuard
from langchain_safeguard.runnables.output_guard import OutputGuard, guarded

__all__ = ["InputGuard", "OutputGuard", "guarded"]
