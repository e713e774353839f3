"""`demur bench graft`: grafts, rivals and controls on many recipients of one family."""
