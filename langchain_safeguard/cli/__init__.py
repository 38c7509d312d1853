"""The command `langchain-safeguard`.

Exit codes: 0 done, or the text is allowed; 1 something is wrong with what was read (a policy, a
guard's weights); 2 wrong use; 3 the text is not allowed; 130 interrupted; 141 nobody reads on.
"""

from langchain_safeguard.cli.main import main

__all__ = ["main"]
