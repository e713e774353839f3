"""`demur graft`: what carries refusal in a donor, put into a relative."""
