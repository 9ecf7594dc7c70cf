"""The program `astrovision`: one module for each verb."""
