"""The conformance kit: what plugin authors run in their tests, and small worlds to run it in."""
