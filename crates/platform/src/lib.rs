//! Guest processes as a machine: address spaces, guest threads and their exits.
