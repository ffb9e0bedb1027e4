"""The paper's profile from the catalogue to the report, with stand-ins for what cannot be had: `make rehearse`."""
