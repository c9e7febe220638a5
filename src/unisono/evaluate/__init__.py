"""Evaluation of what services and stores did: histories of it, and checkers that judge them."""
