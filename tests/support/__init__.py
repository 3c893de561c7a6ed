"""What tests of several layers build: objects of the API and documents of the protocol."""
