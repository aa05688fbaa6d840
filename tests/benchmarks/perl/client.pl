#!/usr/bin/perl
# A driver (see tests/benchmarks/drivers/__init__.py) for Gearman's job servers, in Perl: the same for both.
# Usage: client.pl HOST:PORT
use strict;
use warnings;
use Gearman::Client;
use JSON::PP;
use Time::HiRes qw(time);

my $client = Gearman::Client->new(job_servers => [$ARGV[0]]);
my %functions = (serial => \&serial, windowed => \&windowed);

$| = 1;
say_json('ready');
while (my $line = <STDIN>) {
    my $request = decode_json($line);
    say_json($functions{ $request->{run} }->($request));
}

# One job after the other: the seconds that each took.
sub serial {
    my ($request) = @_;
    my @latencies;
    for my $number (0 .. $request->{jobs} - 1) {
        my ($data, $argument) = payload($request, $number);
        my $start = time;
        my $answer = $client->do_task(name($request), $argument);
        push @latencies, time - $start;
        check($answer && $$answer, $data);
    }
    return { latencies => \@latencies };
}

# One burst of all jobs, since the client library cannot keep a window full: the seconds it took.
sub windowed {
    my ($request) = @_;
    my $answered = 0;
    my $start    = time;
    my $tasks    = $client->new_task_set;
    for my $number (0 .. $request->{jobs} - 1) {
        my ($data, $argument) = payload($request, $number);
        $tasks->add_task(name($request), $argument, {
            on_complete => sub { check(${ $_[0] }, $data); $answered++ },
            on_fail     => sub { die "a job failed: @_\n" },
        });
    }
    $tasks->wait(timeout => 60);
    die "$answered answers to $request->{jobs} jobs\n" if $answered != $request->{jobs};
    return { seconds => time - $start };
}

sub name { return $_[0]{work} // 'echo' }

# The data of a job, which no other job of the run has, and the argument that carries it.
sub payload {
    my ($request, $number) = @_;
    my $data = sprintf '%0*d', $request->{size} // 32, $number;
    return ($data, ($request->{amount} // 0) . ":$data");
}

sub check {
    my ($answer, $expected) = @_;
    die "'" . ($answer // 'nothing') . "' instead of '$expected'\n"
        if ($answer // '') ne $expected;
}

sub say_json { print JSON::PP->new->allow_nonref->encode($_[0]), "\n" }
