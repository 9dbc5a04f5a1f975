"""The gate: is a candidate method no worse than a baseline, with as few runs as show it?"""
