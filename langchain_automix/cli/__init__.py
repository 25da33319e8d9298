"""The command line `automix`, a file a verb. Imports everything."""
