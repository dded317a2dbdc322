"""What only an accelerator can show: ``python -m tests.accelerator VERB``.

The trainer runs here without Ray, MLflow and the command line. Every verb also runs at tiny shapes on a CPU, which is
how the suite keeps it working.
"""
