"""Web pages that write stories in the browser: their files, and a server that shows them on this machine."""
