"""The program `astrovision`: one module a verb."""
