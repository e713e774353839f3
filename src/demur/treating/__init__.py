"""What every treatment is put through: measure, treat, patch, measure again, report."""
