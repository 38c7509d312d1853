"""Training the embedded guard: `python -m langchain_safeguard.training --help`."""
