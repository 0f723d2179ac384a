"""`python -m depth_engine.cli`."""

from depth_engine.cli.main import main

main()
