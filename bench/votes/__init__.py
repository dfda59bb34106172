"""Blind votes of people: a page to vote on, the key that stays here, and what comes back."""
