"""The page of ``k2eg web``: what a browser may ask for, what it is sent, and the server that sends it."""
