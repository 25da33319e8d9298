"""Files that earlier versions of the package wrote, and what they must still mean."""
