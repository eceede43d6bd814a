"""What users type or save for values: names, ranges, conditions, values to write, and their comparison."""
