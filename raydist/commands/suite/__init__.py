"""The cells of `raydist benchmark`: what is to be run, and running it."""
