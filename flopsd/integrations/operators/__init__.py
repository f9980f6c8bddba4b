"""The floating-point operations of the operators that PyTorch dispatches."""
