"""`demur judge`: judges scored against people, and recorded answers judged again."""
