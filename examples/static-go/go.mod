module static-go

go 1.21
