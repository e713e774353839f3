"""`demur align`, the autopilot: look, measure, treat, choose, measure again, write."""
