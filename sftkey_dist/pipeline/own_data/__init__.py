"""Training on accepted responses of the model itself."""
