"""How the bundled models were trained. Not part of the installed package: run it from `tools/`."""
