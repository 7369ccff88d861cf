"""`python -m stpl_deploy`."""

from stpl_deploy.cli import main

main()
