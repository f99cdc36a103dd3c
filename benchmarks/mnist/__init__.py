"""The parts of papa_mnist.py: digits, base model, oracle, learning procedures, report."""
