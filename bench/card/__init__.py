"""Cards of a finished variant: a README for the Hub and a text for a model page, from one set of facts."""
