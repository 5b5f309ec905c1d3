<#
.SYNOPSIS
Has the Docker engine of this machine listen on a TCP port as well, for clients with a certificate of the pool's CA.

.DESCRIPTION
Copies ca.pem, server-cert.pem and server-key.pem to C:\ProgramData\docker\xscontainer-tls, for administrators and the
system only, adds to daemon.json what makes the engine use them, restarts the service and opens the port in the firewall.
The engine stays reachable through its named pipe. Run again with newer certificates, it replaces the old ones. If the
engine does not start like that, all is put back as it was. Where daemon.json has a port or TLS keys already that are
not from here, nothing is done; -Remove takes away what is from here and nothing else.

.EXAMPLE
powershell -ExecutionPolicy Bypass -File D:\enable-tls.ps1

.EXAMPLE
powershell -ExecutionPolicy Bypass -File D:\enable-tls.ps1 -Remove
#>
#Requires -Version 5.1
#Requires -RunAsAdministrator
[CmdletBinding()]
param(
    # The port to listen on.
    [ValidateRange(1, 65535)] [int] $Port = 2376,
    # The address to listen on: all for IPv4; '[::]' is all for both.
    [string] $Address = '0.0.0.0',
    # Where the certificates are.
    [string] $Source = $PSScriptRoot,
    # The name of the engine's service.
    [string] $Service = 'docker',
    # Undo it.
    [switch] $Remove
)

Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'

$Data = Join-Path $env:ProgramData 'docker'
$ConfigFile = Join-Path (Join-Path $Data 'config') 'daemon.json'
$RuleName = 'xscontainer-docker-tls'
$Directory = Join-Path $Data 'xscontainer-tls'
$Names = 'ca.pem', 'server-cert.pem', 'server-key.pem'
# What was added to "hosts": with it there, the rest of daemon.json that points here is from here, too.
$Record = Join-Path $Directory 'host.txt'
$TlsKeys = @{
    tlsverify = $true
    tlscacert = (Join-Path $Directory 'ca.pem')
    tlscert   = (Join-Path $Directory 'server-cert.pem')
    tlskey    = (Join-Path $Directory 'server-key.pem')
}

function Read-Config {
    if (-not (Test-Path -LiteralPath $ConfigFile)) { return New-Object psobject }
    $text = [IO.File]::ReadAllText($ConfigFile)
    if ($text.Trim() -eq '') { return New-Object psobject }
    return ConvertFrom-Json -InputObject $text
}

function Write-Config([psobject] $Config) {
    $text = ConvertTo-Json -InputObject $Config -Depth 32
    [IO.Directory]::CreateDirectory((Split-Path $ConfigFile)) | Out-Null
    # Not Set-Content: it would begin the file with a byte order mark, which dockerd takes for garbage.
    [IO.File]::WriteAllText($ConfigFile, $text, (New-Object Text.UTF8Encoding $false))
}

function Set-Key([psobject] $Config, [string] $Key, $Value) {
    Add-Member -InputObject $Config -MemberType NoteProperty -Name $Key -Value $Value -Force
}

function Remove-Key([psobject] $Config, [string] $Key) {
    if ($Config.PSObject.Properties[$Key]) { $Config.PSObject.Properties.Remove($Key) }
}

function Protect-Directory([string] $Path) {
    # By identifier: the groups have other names in other languages. S-1-5-18 is the system, S-1-5-32-544 administrators.
    $acl = New-Object Security.AccessControl.DirectorySecurity
    $acl.SetAccessRuleProtection($true, $false)
    foreach ($sid in 'S-1-5-18', 'S-1-5-32-544') {
        $who = New-Object Security.Principal.SecurityIdentifier $sid
        $acl.AddAccessRule((New-Object Security.AccessControl.FileSystemAccessRule(
            $who, 'FullControl', 'ContainerInherit, ObjectInherit', 'None', 'Allow')))
    }
    Set-Acl -LiteralPath $Path -AclObject $acl
}

function Restart-Engine {
    Restart-Service -Name $Service -Force
    (Get-Service -Name $Service).WaitForStatus('Running', [TimeSpan]::FromSeconds(60))
}

if (-not (Get-Service -Name $Service -ErrorAction SilentlyContinue)) {
    throw "There is no service named '$Service' here."
}
$config = Read-Config
$ours = if (Test-Path -LiteralPath $Record) { [IO.File]::ReadAllText($Record).Trim() } else { '' }
$hosts = @()
if ($config.PSObject.Properties['hosts']) { $hosts = @($config.hosts) }

# What somebody else has set up is left alone: all ports but ours, and all keys that do not say what we would.
$foreign = @($hosts | Where-Object { $_ -notlike 'npipe:*' -and $_ -ne $ours })
foreach ($key in @('tls') + @($TlsKeys.Keys)) {
    $found = $config.PSObject.Properties[$key]
    if ($found -and -not ($ours -and $TlsKeys.ContainsKey($key) -and $found.Value -eq $TlsKeys[$key])) { $foreign += $key }
}

if ($Remove) {
    if (-not $ours) { throw 'There is nothing here that this script has set up.' }
} else {
    foreach ($name in $Names) {
        if (-not (Test-Path -LiteralPath (Join-Path $Source $name))) { throw "There is no $name in $Source." }
    }
    if ($foreign.Count -gt 0) {
        throw ("$ConfigFile has ports or TLS keys already, which this would replace: $($foreign -join ', '). Remove them " +
            'there and run this again, or have the engine take the certificates that are on this disc yourself.')
    }
    # What dockerd refuses to have said twice, on its command line and in its file.
    $command = (Get-ItemProperty "HKLM:\SYSTEM\CurrentControlSet\Services\$Service").ImagePath
    if ($command -match '\s(-H|--host|--tls)') {
        throw "The service '$Service' is registered with options for hosts or TLS: $command. Register it without them first."
    }
}

$files = @($ConfigFile, $Record) + @($Names | ForEach-Object { Join-Path $Directory $_ })
$before = @{}
foreach ($path in $files) {
    if (Test-Path -LiteralPath $path) { $before[$path] = [IO.File]::ReadAllBytes($path) }
}

try {
    $hosts = @($hosts | Where-Object { $_ -ne $ours })
    if ($Remove) {
        foreach ($key in $TlsKeys.Keys) {
            if ($foreign -notcontains $key) { Remove-Key $config $key }
        }
        # The pipe alone is what the engine listens on by itself.
        if (($hosts -join ' ') -in '', 'npipe://') { Remove-Key $config 'hosts' } else { Set-Key $config 'hosts' $hosts }
        Remove-Item -LiteralPath $Record
    } else {
        [IO.Directory]::CreateDirectory($Directory) | Out-Null
        # Before anything is in there.
        Protect-Directory $Directory
        foreach ($name in $Names) {
            # Not Copy-Item: a file on a CD is read-only, and the next one is to replace it.
            [IO.File]::WriteAllBytes((Join-Path $Directory $name), [IO.File]::ReadAllBytes((Join-Path $Source $name)))
        }
        if ($hosts.Count -eq 0) { $hosts = @('npipe://') }
        $added = "tcp://${Address}:$Port"
        Set-Key $config 'hosts' @($hosts + $added)
        foreach ($key in $TlsKeys.Keys) { Set-Key $config $key $TlsKeys[$key] }
        [IO.File]::WriteAllText($Record, $added)
    }
    Write-Config $config
    Restart-Engine
} catch {
    $why = $_
    foreach ($path in $files) {
        if ($before.ContainsKey($path)) {
            [IO.File]::WriteAllBytes($path, $before[$path])
        } else {
            Remove-Item -LiteralPath $path -ErrorAction SilentlyContinue
        }
    }
    try { Restart-Engine } catch { Write-Warning "The engine does not start as it did before, either: $_" }
    throw "The engine does not start like that, so all is as it was; the event log says why. $why"
}

Get-NetFirewallRule -Name $RuleName -ErrorAction SilentlyContinue | Remove-NetFirewallRule
if ($Remove) {
    foreach ($name in $Names) {
        Remove-Item -LiteralPath (Join-Path $Directory $name) -ErrorAction SilentlyContinue
    }
    Write-Output 'The engine listens on its named pipe only.'
} else {
    New-NetFirewallRule -Name $RuleName -DisplayName 'Docker over TLS (xscontainer)' -Direction Inbound -Protocol TCP `
        -LocalPort $Port -Action Allow | Out-Null
    Write-Output "The engine listens on port $Port, for clients with a certificate of the pool's CA."
}
