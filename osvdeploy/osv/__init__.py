"""What OSv understands, pure: kernels, command lines, file trees, ROFS, disks, boot logs. No cloud, no clock."""
