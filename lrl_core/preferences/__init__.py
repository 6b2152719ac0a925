"""What people prefer: comparisons of answers, losses and measures of scores, and the store of what was judged."""
