"""Generated broken folders and files, through the commands and the download stage."""
