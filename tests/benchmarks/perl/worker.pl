#!/usr/bin/perl
# A Gearman worker that does the same work as tests/benchmarks/work.py.
# Usage: worker.pl HOST:PORT
use strict;
use warnings;
use Gearman::Worker;
use Time::HiRes qw(usleep clock_gettime CLOCK_PROCESS_CPUTIME_ID);

my $worker = Gearman::Worker->new(job_servers => [$ARGV[0]]);

# An argument is the amount in microseconds, a colon, and the data.
$worker->register_function(echo => sub {
    my (undef, $data) = split /:/, $_[0]->arg, 2;
    return $data;
});
$worker->register_function(spin => sub {
    my ($amount, $data) = split /:/, $_[0]->arg, 2;
    my $end = clock_gettime(CLOCK_PROCESS_CPUTIME_ID) + $amount / 1e6;
    1 while clock_gettime(CLOCK_PROCESS_CPUTIME_ID) < $end;
    return $data;
});
$worker->register_function(nap => sub {
    my ($amount, $data) = split /:/, $_[0]->arg, 2;
    usleep($amount);
    return $data;
});
$worker->work while 1;
