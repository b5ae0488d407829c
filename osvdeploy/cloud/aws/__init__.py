"""The ports on AWS: EBS direct, AMIs, Auto Scaling groups, application load balancers."""
