"""Taste in words: what a person's answers say about the words of a prompt.

vocabulary → lexicon (features of the words) → asking (the next question, as a plan) → utility
(fitted from the answers) → learnt (for people).
"""
