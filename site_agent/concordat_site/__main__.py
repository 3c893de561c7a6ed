"""`python -m concordat_site`: run the agent."""

from concordat_site.main import main

main()
