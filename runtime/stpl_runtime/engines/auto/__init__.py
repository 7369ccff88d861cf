"""`--engine auto`: what this machine can run a bundle on, timed, and the fastest of it."""
