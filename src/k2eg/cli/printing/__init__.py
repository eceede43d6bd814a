"""How values, times and tables are printed: pure functions, and the rows of a terminal."""
