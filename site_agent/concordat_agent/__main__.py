"""`python -m concordat_agent`: run the agent."""

from concordat_agent.main import main

main()
